"""Who is heard: what the members of a group say of themselves, and how."""
