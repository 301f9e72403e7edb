"""Every case of the originals' own numbers, computed by Baton's policy from the originals' own files.

Four things that Baton does not do itself are done here with its hidden states, so that these cases count too: RLinf's
top-k over the whole vocabulary (`rlinf.*.t1k50`), under which a stored action can have log-prob -inf; the original's
greedy choice among all ids, which in a random network may be words (`oft.predict*`, `openvla`); the loss over the whole
vocabulary with the stop token (`oft.train`); and plain OpenVLA's causal attention (`openvla`), whose towers, layers and
head are the same.
"""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stages.policies.openvla_oft import actions, checkpoint
from stages.policies.openvla_oft.config import OpenVLAOFTConfig
from stages.policies.openvla_oft.images import Images
from stages.policies.openvla_oft.policy import OpenVLAOFT
from stages.policies.openvla_oft.sequence import Inputs, Prompts
from stages.policies.openvla_oft.vision import cut
from stages.policies.rotary import rotary_table
from stages.policies.statistics import EPSILON
from tests.stages.policies.layout_for_tests import IMAGENET, publish

pytestmark = pytest.mark.parity

FOLDER = Path(os.environ.get("BATON_FIXTURES", Path(__file__).parents[3].parent / "shared" / "fixtures"))
FOUND = (FOLDER / "openvla_oft_tiny.json").exists()
if not FOUND:
    pytestmark = [pytest.mark.parity, pytest.mark.skip(reason=f"no openvla_oft_tiny.json in {FOLDER}")]

FIRST, LAST = 31744, 32000
DATASET, PATCH, POSITIONS = "libero_10_no_noops", 14, 56
TOWERS = {"dino": {"heads": 2}, "siglip": {"heads": 4}}
LEVELS, IMAGES = ("chunk_level", "action_level"), (1, 3)
TEMPERATURES = {"t1": 1.0, "t16": 1.6, "t1k50": 1.0}
RTOL = 1e-4


class Fixture:
    """The arrays, and policies made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with np.load(FOLDER / "openvla_oft_tiny.npz") as arrays:
            self.arrays = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        self.about = json.loads((FOLDER / "openvla_oft_tiny.json").read_text())
        self.used: set[str] = set()

    def __call__(self, name: str) -> Tensor:
        self.used.add(name)
        return self.arrays[name]

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): self(name) for name in self.arrays if name.startswith(prefix)}

    def policy(self, *sides: str, value: str = "", film: bool = False, **options) -> OpenVLAOFT:
        """The originals' weights, published and loaded."""
        return checkpoint.load(
            self._publish(sides, value, film),
            precision="fp32",
            options=TOWERS | {"chunk": 8, "attention": "eager"} | options,
            statistics=DATASET.removesuffix("_no_noops"),
            seed=None if value else 0,
        )

    @functools.cache  # noqa: B019  # lives as long as the module's tests
    def _publish(self, sides: tuple[str, ...], value: str, film: bool) -> Path:
        tensors = self.under("w.")
        if value:
            tensors |= {f"value_head.{name}": tensor for name, tensor in self.under(f"w_value_head_{value}.").items()}
        files = {side: self.under(f"w_{side}.") for side in sides}
        if film:
            towers = {name: tensor for name, tensor in tensors.items() if name.startswith("vision_backbone.")}
            files["vision_backbone"] = {_wrap(name): t for name, t in towers.items()} | self.under("w_film.")
        return publish(
            self.folder / "-".join(("policy", *sides, value, str(film))),
            tensors,
            self.about["norm_stats"],
            text=self.about["text_config"],
            image_size=self.about["image_size"],
            sides=files,
        )


def _wrap(name: str) -> str:
    """A tower's tensor as FiLM's wrapper names it."""
    if ".blocks." not in name:
        return name
    head, tail = name.split(".blocks.")
    index, rest = tail.split(".", 1)
    return f"{head}.blocks.{index}.block.{rest}"


@pytest.fixture(scope="module")
def fixture(tmp_path_factory):
    return Fixture(tmp_path_factory.mktemp("published"))


def patches_of(pixels: Tensor, policy: OpenVLAOFT) -> tuple[Tensor, Tensor]:
    """Each tower's own pixels [B, 6 n, H, W], normalised, as the patches [B n, patches, 588] that Baton cuts."""
    stacked = pixels.unflatten(1, (-1, 2, 3)).flatten(0, 1)
    both = []
    for tower, config in enumerate((policy.config.dino, policy.config.siglip)):
        mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (config.mean, config.std))
        both.append(cut((stacked[:, tower].double() * std + mean) * 255.0, PATCH).float())
    return both[0], both[1]


def inputs_of(policy: OpenVLAOFT, pixels: Tensor, rows: list[Tensor], length: int = 0, proprio=None) -> Inputs:
    """Prompts of several lengths, BOS first, in Baton's order."""
    length = max(length, *(len(row) for row in rows)) - 1
    ids = torch.full((len(rows), length), policy.config.pad_id)
    for padded, row in zip(ids, rows, strict=True):
        padded[length - len(row) + 1 :] = row[1:]
    valid = ids != policy.config.pad_id
    return Inputs(*patches_of(pixels, policy), Prompts(ids, None if valid.all() else valid), proprio)


def close(actual: Tensor, expected: Tensor, rtol: float = RTOL, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, check_dtype=False)


def every_logit(policy: OpenVLAOFT, hidden: Tensor) -> Tensor:
    """Logits of the whole vocabulary."""
    return hidden @ policy.language_model.lm_head.weight.T


def same_actions(policy: OpenVLAOFT, tokens: Tensor, expected: Tensor) -> None:
    """Un-normalised in float64, where the 1e-8 of the originals counts."""
    found = policy.action_units.inverse(actions.decode(tokens))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


# --- vision


@torch.no_grad()
def test_towers_and_projector(fixture) -> None:
    policy = fixture.policy()
    dino, siglip = patches_of(fixture("vision.pixel_values"), policy)
    close(policy.vision_backbone.featurizer(dino, False), fixture("vision.dino"))
    close(policy.vision_backbone.fused_featurizer(siglip, False), fixture("vision.siglip"))
    close(policy.projector(policy.vision_backbone(dino, siglip, False)), fixture("vision.projected"))


@torch.no_grad()
def test_film(fixture) -> None:
    policy = fixture.policy(film=True)
    assert policy.config.film
    dino, siglip = patches_of(fixture("vision.pixel_values"), policy)
    close(policy.vision_backbone(dino, siglip, False, fixture("film.lang").mean(dim=1)), fixture("film.out"))


def test_images_are_resized_as_pil_does(fixture) -> None:
    image = fixture("image.u8").permute(2, 0, 1)[None]
    side = fixture.about["image_size"]
    resized = Images(OpenVLAOFTConfig(image_size=side, resize="resize-naive"))(image)
    mean, std = (torch.tensor(IMAGENET[key])[:, None, None] for key in ("mean", "std"))
    expected = fixture("image.pixel_values").split(3, dim=1)
    for found, tower in zip(((resized / 255 - mean) / std, (resized / 255 - 0.5) / 0.5), expected, strict=True):
        close(found, tower, atol=3e-3)  # the fixture's means are ImageNet's before they were rounded to bfloat16
    assert torch.equal(((expected[1] * 0.5 + 0.5) * 255).round().to(torch.uint8), resized)


# --- the originals' evaluation and supervised training


@pytest.mark.parametrize("images", IMAGES)
@torch.no_grad()
def test_predicting_as_the_original(fixture, images: int) -> None:
    case = f"oft.predict{images}"
    policy = fixture.policy(images=images)
    assert policy.config.stop_token
    inputs = inputs_of(policy, fixture(f"{case}.pixel_values"), list(fixture(f"{case}.input_ids")))
    hidden, _ = policy.hidden_states(inputs)
    close(hidden, fixture(f"{case}.action_hidden"))
    logits = policy.logits(hidden)
    close(logits.flatten(1, 2), fixture(f"{case}.action_logits"))
    tokens = every_logit(policy, hidden).argmax(dim=-1)
    assert torch.equal(tokens, fixture(f"{case}.token_ids"))
    same_actions(policy, tokens.view(8, 7) - FIRST, fixture(f"f64.{case}.actions"))


@torch.no_grad()
def test_training_loss_over_prompts_of_several_lengths(fixture) -> None:
    policy = fixture.policy()
    ids, lengths = fixture("oft.train.input_ids"), fixture("oft.train.prompt_len").tolist()
    rows = [row[:length] for row, length in zip(ids, lengths, strict=True)]
    inputs = inputs_of(policy, fixture("oft.train.pixel_values"), rows)
    close(policy.logits(policy.hidden_states(inputs)[0]).flatten(1, 2), fixture("oft.train.action_logits"))
    sequence = policy.sequence(inputs, False)
    hidden = policy.language_model.model(sequence.embeddings, sequence.valid, slice(-POSITIONS - 2, -1), False)
    labels = torch.stack(
        [row[row != -100] for row in fixture("oft.train.labels")]
    )  # the 56 actions and the stop token of each row
    assert torch.equal((ids != policy.config.pad_id).long(), fixture("oft.train.attention_mask"))
    loss = F.cross_entropy(every_logit(policy, hidden).flatten(0, 1), labels.flatten())
    close(loss, fixture("oft.train.loss"))


@torch.no_grad()
def test_the_regression_head_with_proprioception(fixture) -> None:
    policy = fixture.policy("action_head", "proprio_projector", images=2)
    assert (policy.config.action_head, policy.config.proprio_dim) == ("l1", 8)
    proprio = policy.proprio_units(fixture("oft.l1.proprio")[None]).float()
    inputs = inputs_of(policy, fixture("oft.l1.pixel_values"), list(fixture("oft.l1.input_ids")), proprio=proprio)
    hidden, _ = policy.hidden_states(inputs)
    close(hidden, fixture("oft.l1.action_hidden"))
    close(policy.action_units.inverse(policy.action_head(hidden))[0], fixture("f64.oft.l1.actions"))


# --- RLinf's two forms


def judge(policy: OpenVLAOFT, inputs: Inputs, fixture: Fixture, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs [B, K A, 256] of Baton's own, hidden states and values."""
    hidden, value_hidden = policy.hidden_states(inputs)
    log_probs = torch.log_softmax(policy.logits(hidden).flatten(1, 2) / temperature, dim=-1)
    return log_probs, hidden, policy.value_head(value_hidden)


def compare(fixture: Fixture, case: str, log_probs: Tensor, values: Tensor) -> None:
    taken = fixture("rl.action_tokens_rel").flatten(1)[..., None]
    close(log_probs.gather(-1, taken)[..., 0], fixture(f"{case}.logprobs"))
    entropy = torch.where(log_probs.isinf(), 0.0, -log_probs.exp() * log_probs).sum(dim=-1)
    close(entropy, fixture(f"{case}.entropy"))
    close(values, fixture(f"{case}.values"))


def rlinf(fixture: Fixture, level: str, images: int) -> tuple[OpenVLAOFT, Inputs]:
    policy = fixture.policy(value=level, images=images, stop_token=False, value_level=level.removesuffix("_level"))
    ids, mask = fixture("rlinf.input_ids"), fixture("rlinf.attention_mask").bool()
    rows = [row[seen] for row, seen in zip(ids, mask, strict=True)]
    return policy, inputs_of(policy, fixture(f"rl.img{images}.pixel_values"), rows, length=ids.shape[1])


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("level", LEVELS)
@torch.no_grad()
def test_rlinf(fixture, level: str, images: int) -> None:
    policy, inputs = rlinf(fixture, level, images)
    for name, temperature in TEMPERATURES.items():
        log_probs, hidden, values = judge(policy, inputs, fixture, temperature)
        if name == "t1k50":
            every = every_logit(policy, hidden) / temperature
            kept = every.masked_fill(every < every.topk(50, dim=-1).values[..., -1:], -torch.inf)
            log_probs = torch.log_softmax(kept[..., FIRST:LAST], dim=-1)
        compare(fixture, f"rlinf.{level}.img{images}.{name}", log_probs, values)


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("level", LEVELS)
@torch.no_grad()
def test_rlinf_acting_greedily(fixture, level: str, images: int) -> None:
    policy, inputs = rlinf(fixture, level, images)
    case = f"rlinf.{level}.img{images}.greedy"
    log_probs, _, values = judge(policy, inputs, fixture, 1.0)
    tokens = log_probs.argmax(dim=-1)
    assert torch.equal(tokens.unflatten(1, (8, 7)), fixture(f"{case}.tokens") - FIRST)
    close(log_probs.gather(-1, tokens[..., None])[..., 0], fixture(f"{case}.prev_logprobs"))
    close(values, fixture(f"{case}.prev_values"))
    same_actions(policy, tokens.unflatten(1, (8, 7)), fixture(f"f64.{case}.actions"))


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("level", LEVELS)
@torch.no_grad()
def test_official(fixture, level: str, images: int) -> None:
    ids, mask = fixture("official.input_ids"), fixture("official.attention_mask").bool()
    sides = ("proprio_projector",) if images == 3 else ()
    policy = fixture.policy(
        *sides,
        value=level,
        images=images,
        value_level=level.removesuffix("_level"),
        value_position="official",
        prompt_length=ids.shape[1],
    )
    proprio = fixture(f"official.{level}.img3.proprio") if images == 3 else None
    rows = [row[seen] for row, seen in zip(ids, mask, strict=True)]
    inputs = inputs_of(policy, fixture(f"rl.img{images}.pixel_values"), rows, length=ids.shape[1], proprio=proprio)
    for name, temperature in TEMPERATURES.items():
        log_probs, _, values = judge(policy, inputs, fixture, temperature)
        if name == "t1k50":
            log_probs = torch.log_softmax(actions.truncate(log_probs, 50), dim=-1)
        compare(fixture, f"official.{level}.img{images}.{name}", log_probs, values)


# --- plain OpenVLA


@torch.no_grad()
def test_plain_openvla_with_its_own_tokens_given(fixture) -> None:
    policy = fixture.policy(stop_token=False)
    generated = fixture("openvla.generated")
    inputs = inputs_of(policy, fixture("openvla.pixel_values"), list(fixture("openvla.input_ids")))
    prompt = policy.sequence(inputs, False).embeddings[:, :-POSITIONS]
    body = policy.language_model.model
    hidden = torch.cat([prompt, body.embed_tokens(generated[:, :-1])], dim=1)
    causal = torch.full((1, 1, hidden.shape[1], hidden.shape[1]), -1e9).triu(1)
    rotary = rotary_table(torch.arange(hidden.shape[1])[None], body.head_width, body.rope_theta)
    for layer in body.layers:
        hidden = layer(hidden, rotary, causal, slice(None), False)
    hidden = body.norm(hidden[:, -generated.shape[1] :])
    close(policy.language_model.lm_head(hidden), fixture("openvla.action_logits"))
    assert torch.equal(every_logit(policy, hidden).argmax(dim=-1), generated)
    found = policy.action_units.inverse(actions.decode(generated[0] - FIRST))
    expected, units = fixture("f64.openvla.actions"), policy.action_units
    without = torch.where(units.mask, (found - units.low) / (units.span + EPSILON) * units.span + units.low, found)
    torch.testing.assert_close(without, expected, rtol=1e-12, atol=1e-14)  # plain OpenVLA adds no 1e-8


def test_every_array_of_the_fixture_was_compared(fixture) -> None:
    assert sorted(fixture.arrays.keys() - fixture.used) == []
