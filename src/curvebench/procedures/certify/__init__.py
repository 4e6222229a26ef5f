"""What the tasks certify about themselves."""
