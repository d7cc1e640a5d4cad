"""Lanes: what is due in them, done each second by whichever worker holds one."""
