"""The skill model: sizes of the paper's networks and identities of its loss."""

import math

import pytest
import torch
from torch import Tensor, nn

from skild_ray.config import SkillModelSettings
from skild_ray.models.gaussian import Gaussian
from skild_ray.models.skill_model import SkillHead, SkillModel

PAPER = SkillModelSettings(decoder_hidden=128, decoder_layers=5, decoder_norm="batch", head_norm="batch")
SMALL = SkillModelSettings(horizon=4, latent_dim=3, hidden=16, decoder_layers=1, head_layers=1, decoder_norm="none")


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("dims", "encoder", "decoder", "prior"),
    [((60, 9), 160_148, 93_449, 110_228), ((4, 2), 152_084, 85_378, 103_060), ((97, 8), 164_756, 98_056, 114_964)],
    ids=["kitchen", "maze", "office"],
)
def test_parameter_counts(dims: tuple[int, int], encoder: int, decoder: int, prior: int) -> None:
    model = SkillModel(*dims, PAPER)
    assert [_parameters(part) for part in (model.encoder, model.decoder, model.prior)] == [encoder, decoder, prior]


def test_forget_gates_start_open() -> None:
    lstm = SkillModel(4, 2, SMALL).encoder.lstm
    for bias in (lstm.bias_ih_l0, lstm.bias_hh_l0):
        assert bias[16:32].tolist() == [1.0] * 16
        assert not (bias[:16] == 1.0).any()
        assert not (bias[32:] == 1.0).any()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, 6, generator=generator), torch.randn(5, 4, 2, generator=generator)


@pytest.fixture
def model() -> SkillModel:
    torch.manual_seed(0)
    return SkillModel(6, 2, SMALL)


def _constant_encoder(model: SkillModel, mean: Tensor, log_std: Tensor) -> None:
    nn.init.zeros_(model.encoder.head.weight)
    model.encoder.head.bias.data = torch.cat([mean, log_std])


def _constant_prior(model: SkillModel, mean: float, log_std: float) -> None:
    last = model.prior.net[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([mean] * 3 + [log_std] * 3)


def test_encoder_is_an_embedding_and_an_lstm(model: SkillModel, batch: tuple[Tensor, Tensor]) -> None:
    states, actions = batch
    encoder = model.encoder
    encoded = encoder(states, actions)
    outputs, _ = encoder.lstm(encoder.embed(torch.cat([actions, states], dim=-1)))
    mean, log_std = encoder.head(encoder.project(outputs[:, -1])).chunk(2, dim=-1)
    torch.testing.assert_close(encoded.mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoded.log_std, log_std, rtol=1e-4, atol=1e-5)
    encoded.mean.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_perfect_reconstruction_costs_the_gaussian_constant(model: SkillModel, batch: tuple[Tensor, Tensor]) -> None:
    for parameter in model.decoder.parameters():
        nn.init.zeros_(parameter)
    states, actions = batch
    losses = model(states, torch.zeros_like(actions), 0.1)
    assert losses.reconstruction.item() == pytest.approx(0.9189, abs=1e-4)
    assert losses.action_mse.item() == 0.0
    shifted = model(states, torch.full_like(actions, 2.0), 0.1)
    assert shifted.reconstruction.item() == pytest.approx(0.9189 + 0.5 * 4, abs=1e-4), "mean over batch, time, action"


def test_kl_is_averaged_over_dimensions(model: SkillModel, batch: tuple[Tensor, Tensor]) -> None:
    _constant_encoder(model, torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 0.0, math.log(2)]))
    # KL(N(m, s) || N(0, 1)) = (s^2 + m^2 - 1) / 2 - log s: 0.5, 2, 1.5 - log 2
    assert model(*batch, 1.0).kl.item() == pytest.approx((0.5 + 2 + 1.5 - math.log(2)) / 3, rel=1e-5)


def test_prior_likelihood_is_summed_over_dimensions(model: SkillModel, batch: tuple[Tensor, Tensor]) -> None:
    _constant_encoder(model, torch.full((3,), 3.0), torch.full((3,), -10.0))
    _constant_prior(model, 1.0, math.log(2))
    one_dimension = 0.5 * ((3 - 1) / 2) ** 2 + math.log(2) + 0.5 * math.log(2 * math.pi)
    assert model(*batch, 1.0).prior.item() == pytest.approx(3 * one_dimension, rel=1e-3)


def test_total_weighs_the_parts(model: SkillModel, batch: tuple[Tensor, Tensor]) -> None:
    losses = model(*batch, 0.25)
    torch.testing.assert_close(losses.total, losses.reconstruction + 0.25 * losses.kl + losses.prior)


def _moved(model: SkillModel) -> set[str]:
    """Parts of the model that have a gradient."""
    return {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_prior_loss_reaches_the_prior_only(model: SkillModel, batch: tuple[Tensor, Tensor]) -> None:
    model(*batch, 1.0).prior.backward()
    assert _moved(model) == {"prior"}


def test_reconstruction_reaches_encoder_and_decoder(model: SkillModel, batch: tuple[Tensor, Tensor]) -> None:
    model(*batch, 1.0).reconstruction.backward()
    assert _moved(model) == {"encoder", "decoder"}


def test_prior_sees_the_first_state_only(model: SkillModel, batch: tuple[Tensor, Tensor]) -> None:
    states, actions = batch
    _constant_encoder(model, torch.zeros(3), torch.full((3,), -10.0))
    torch.manual_seed(0)
    before = model(states, actions, 1.0).prior
    later = states.clone()
    later[:, 1:] += 1
    torch.manual_seed(0)
    assert torch.equal(model(later, actions, 1.0).prior, before)


def test_decoder_is_closed_loop(model: SkillModel, batch: tuple[Tensor, Tensor]) -> None:
    states, latents = batch[0], torch.randn(5, 3)
    decoded = model.decode(states, latents)
    assert decoded.shape == (5, 4, 2)
    flat = model.decoder(torch.cat([states[2, 3], latents[2]])[None])[0]
    torch.testing.assert_close(decoded[2, 3], flat)


def test_standardisers_enter_every_network(model: SkillModel, batch: tuple[Tensor, Tensor]) -> None:
    states, actions = batch
    plain_encoded, plain_prior = model.encode(states, actions), model.prior(states[:, 0])
    plain_decoded = model.decode(states, plain_encoded.mean)
    data = torch.randn(1000, 6) * 3 + 2
    model.fit_standardizers(data)
    raw = states * data.std(0) + data.mean(0)
    torch.testing.assert_close(model.encode(raw, actions).mean, plain_encoded.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.prior(raw[:, 0]).mean, plain_prior.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.decode(raw, plain_encoded.mean), plain_decoded, rtol=1e-4, atol=1e-5)


def test_head_takes_standardised_observations() -> None:
    head = SkillHead(6, SMALL).eval()
    head.standardize.fit(torch.randn(100, 6) * 2 + 1)
    observations = torch.randn(3, 6)
    direct: Gaussian = head(head.standardize(observations), standardised=True)
    torch.testing.assert_close(direct.mean, head(observations).mean)
