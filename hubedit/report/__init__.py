"""What a run came to, for people: figures and the card. Pure functions of results."""
