"""Everything that puts work in: collecting permits, audiences, broadcasts, the command line.

Importing it does nothing: no settings are read, no connection is opened, no worker code is loaded.
"""
