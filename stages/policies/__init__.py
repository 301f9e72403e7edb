"""Policies: what decides on a chunk of actions from cameras, proprioception and an instruction."""
