"""Commands about how a deployment is set up: its settings, apps and keys, and what it logs."""
