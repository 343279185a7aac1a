"""Models of what opsd does when processes die, wait and overtake each other, explored wholly."""
