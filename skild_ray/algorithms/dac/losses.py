"""The losses of DAC as functions of tensors (Kostrikov et al., ICLR 2019): those of RLPD, for the returns of a
discriminator, and the discriminator's own.

D(s, a) = sigmoid(d(s, a)) tells demonstrations (1) from the policy's own transitions (0). With r_D(d) of
`skild_ray.models.discriminator`, a walk of m <= n transitions, w_i = gamma^i, and t = 1 where it terminates, else 0:

    returns = sum_{i=0}^{m-1} w_i r_D(d(s_i, a_i)) + t gamma^m V_abs,     V_abs = r_D(d_abs) / (1 - gamma)

V_abs is the value of the absorbing state, in which a terminated episode stays for ever (section 4.2 of the paper). If
an end were worth 0 instead, positive rewards would pay for avoiding it, and negative ones for any end, whatever the
demonstrations do. All terminated episodes share one absorbing state, so D is a single number there. The paper's critic
learns V_abs from transitions that lead from this state to itself; here it is in closed form what they converge to.

    discriminator = 1/2 [mean softplus(-d(demonstrated)) + mean softplus(d(own))]
                  + 1/2 [mean t_demonstrated softplus(-d_abs) + mean t_own softplus(d_abs)]
                  + lambda mean (|grad d(x)| - 1)^2,     x = u x_demonstrated + (1 - u) x_own,   u ~ U(0, 1)

The second line counts one visit of the absorbing state for each transition that terminates: d_abs follows the log-ratio
of how often demonstrated and own transitions do. lambda is `gradient_penalty`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import softplus

from skild_ray.algorithms.dac.settings import DACSettings
from skild_ray.models.discriminator import discriminator_loss, discriminator_reward


@torch.no_grad()
def discriminator_returns(settings: DACSettings, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
    """The returns above, [B].

    Args:
        settings: of the algorithm.
        batch: from the replay: `n_step_weights` [B, n] = w_0 .. w_{m-1}, then 0, and `bootstrap` [B], 0 where the walk
            terminates.
        out: of `DACTorchRLModule` on that batch.
    """
    weights, terminates = batch["n_step_weights"], batch["bootstrap"] == 0
    rewards = (weights * discriminator_reward(settings, out["logits"])).sum(-1)
    absorbed = discriminator_reward(settings, out["absorbing"]) / (1 - settings.discount)
    return rewards + terminates * settings.discount ** (weights > 0).sum(-1) * absorbed


def dac_discriminator_loss(settings: DACSettings, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Tensor:
    """The discriminator's loss above, a scalar.

    Args:
        settings: of the algorithm.
        batch: of `DACExperience`: `demonstrated_terminated` and `own_terminated` [B], t of those transitions.
        out: of `DACTorchRLModule` on that batch.
    """
    absorbing = out["absorbing"]
    ends = batch["demonstrated_terminated"] * softplus(-absorbing) + batch["own_terminated"] * softplus(absorbing)
    loss = discriminator_loss(out["positive"], out["negative"], smoothing=0.0) + 0.5 * ends.mean()
    if settings.gradient_penalty > 0:
        loss = loss + settings.gradient_penalty * (out["slope"] - 1).square().mean()
    return loss
