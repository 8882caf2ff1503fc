"""The protocol under attack: the real code, in a simulated world that does its worst. See `world`."""
