"""Developer tooling: what ./dev runs. Nothing here is shipped."""
