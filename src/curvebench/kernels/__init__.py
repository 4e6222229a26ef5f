"""Pure numerics: no state, no input or output; one subject a file, torch and jax with the same public names."""
