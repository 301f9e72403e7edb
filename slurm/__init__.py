"""How a unit gets onto a machine. Imports nothing else of Baton."""
