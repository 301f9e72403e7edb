"""A real multi-node Slurm on one machine, for tests and for trying Baton out."""

from slurm.cluster.controls import Cluster
from slurm.cluster.errors import ClusterError
from slurm.cluster.lifecycle import DaemonStatus, Status, default_root, down, status, up

__all__ = ["Cluster", "ClusterError", "DaemonStatus", "Status", "default_root", "down", "status", "up"]
