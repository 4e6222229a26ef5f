"""Procedures: code that runs studies and draws a conclusion from their records. One file each."""
