"""Control: how a test steers the sandbox, and asks it."""
