"""Recording a network as CUDA graphs: a small batch takes longer to launch, kernel by kernel, than to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

LARGEST = 4
"""Decisions of the largest batch that is recorded; from there on launching costs little beside computing."""


class Replayed:
    """A function of tensors that is recorded once for each shape of its inputs, and replayed, without gradients.

    All recordings share their memory for intermediate results, so one at a time may run.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Record nothing yet.

        Args:
            function: without random numbers and without waiting for the GPU inside; the last of the tensors it is
                given has a row a decision.
        """
        self._function = function
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, *inputs: Any) -> Any:
        """Run the function; what comes out is the caller's.

        Args:
            inputs: nested tuples of tensors on the GPU, and of what is compared by value.

        Returns:
            What the function returns.
        """
        leaves, structure = pytree.tree_flatten(inputs)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if torch.is_grad_enabled() or len(tensors[-1]) > LARGEST:
            return self._function(*inputs)
        key = (structure, tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves))
        if key not in self._recorded:
            self._recorded[key] = self._record(inputs)
        graph, places, results = self._recorded[key]
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor)
        graph.replay()
        return pytree.tree_map_only(Tensor, torch.clone, results)

    def _record(self, inputs: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        """Record the function for inputs like these, beside where its inputs and results lie."""
        own = pytree.tree_map_only(Tensor, torch.clone, inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, and lets libraries choose and allocate what cannot be recorded
                self._function(*own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = self._function(*own)
        return graph, [leaf for leaf in pytree.tree_leaves(own) if isinstance(leaf, Tensor)], results
