"""The rules of a quorum of servers that forget: explored exhaustively in small worlds, at random in large ones."""
