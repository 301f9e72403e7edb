"""Recording the network as CUDA graphs: a small batch takes longer to launch, kernel by kernel, than to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from stages.policies.openvla_oft.sequence import Inputs

LARGEST = 4
"""Decisions of the largest batch that is recorded; from there on launching costs nothing beside computing."""

Network = Callable[[Inputs], tuple[Tensor, Tensor]]


class Replayed:
    """A network that is recorded once for each shape of its inputs, and replayed from then on, without gradients.

    All recordings share their memory for intermediate results, so one at a time may run.
    """

    def __init__(self, network: Network) -> None:
        """Record nothing yet.

        Args:
            network: without random numbers and without waiting for the GPU inside.
        """
        self._network = network
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], tuple[Tensor, Tensor]]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Run the network; what comes out is the caller's.

        Args:
            inputs: on the GPU.

        Returns:
            What the network returns.
        """
        if torch.is_grad_enabled() or len(inputs.prompts.ids) > LARGEST:
            return self._network(inputs)
        given, structure = pytree.tree_flatten(inputs)
        tensors = [leaf for leaf in given if isinstance(leaf, Tensor)]
        key = (structure, tuple(None if leaf is None else (leaf.shape, leaf.dtype) for leaf in given))
        if key not in self._recorded:
            self._recorded[key] = self._record(inputs)
        graph, places, results = self._recorded[key]
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor)
        graph.replay()
        hidden, value_hidden = results
        return hidden.clone(), value_hidden.clone()

    def _record(self, inputs: Inputs) -> tuple[torch.cuda.CUDAGraph, list[Tensor], tuple[Tensor, Tensor]]:
        """Record the network for inputs like these, beside where its inputs and results lie."""
        own = pytree.tree_map_only(Tensor, torch.clone, inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, and lets libraries choose and allocate what cannot be recorded
                self._network(own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = self._network(own)
        return graph, [leaf for leaf in pytree.tree_leaves(own) if isinstance(leaf, Tensor)], results
