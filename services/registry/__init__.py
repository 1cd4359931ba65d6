"""Resources: who lends which cloud, with which credential and how far Tides may go on it."""
