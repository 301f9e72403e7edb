"""What a run came to: live view, tables and result.json, all of it read from the run directory."""
