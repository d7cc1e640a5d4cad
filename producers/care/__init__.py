"""Care: looking after a deployment: recount everything, examine everything."""
