"""What the cluster raises."""


class ClusterError(Exception):
    """The cluster cannot do what was asked; one line that says why, and where to look."""
