"""The scripted expert: closed loop from the true state, over arrays with a leading world axis N."""
