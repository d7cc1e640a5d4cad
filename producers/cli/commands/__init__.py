"""Commands: one file a group; a command imports no other command."""
