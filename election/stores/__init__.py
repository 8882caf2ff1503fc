"""The adapters, one file each; `election.open_register` picks one."""
