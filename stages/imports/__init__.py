"""Imports: demonstrations that others recorded become Baton's shards, see `baton import`."""
