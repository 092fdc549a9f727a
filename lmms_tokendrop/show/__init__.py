"""What a method did with a picture: whose tokens stayed, merged and left, and the answers."""
