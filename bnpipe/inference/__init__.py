"""Exact answers for batches of rows: the network compiled once into flat arrays, rows along the innermost axis.

Evidence enters as likelihood vectors, ones where a cell is missing, so rows with any pattern of missing cells go
through together. Products and sums follow a binary tree over the factors (`contraction`); a plan of only the messages
that the targets need (`program`) is run by compiled code over blocks of rows that fit the cache
(`bnpipe.kernels.propagation`). Messages are never divided by one another, hence zeros are safe. Where a target's Markov
blanket is observed its posterior is a product of table look-ups instead (`lookup`). What is too dense for all this is
refused by name, and can be estimated by likelihood weighting (`sampling`).

References
----------
Shafer, G. & Shenoy, P. P. (1990). Probability propagation. Annals of Mathematics and AI 2, 327-351.
Koller, D. & Friedman, N. (2009). Probabilistic Graphical Models, chapter 10.
"""

from bnpipe.inference.engine import Engine, compile  # noqa: A004
from bnpipe.inference.likelihoods import TrainingLikelihoods
from bnpipe.inference.results import Explanation, FamilyPosterior, Posterior
from bnpipe.inference.sampling import SampledPosterior, likelihood_weighting

__all__ = [
    "Engine",
    "Explanation",
    "FamilyPosterior",
    "Posterior",
    "SampledPosterior",
    "TrainingLikelihoods",
    "compile",
    "likelihood_weighting",
]
