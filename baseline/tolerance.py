"""How far answers may be from the golden record's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """How far answers may be from the record's and still be the same model's.

    Measured on the bundled model by adding noise to the output of every quantised matrix: 1e-6 of its RMS,
    more than float32 sums in another order differ by, gives a largest KL of 2e-10, logits off by 5e-5 and
    perplexity by 7e-7 of itself; 1e-3, as from sums in bfloat16, gives 2e-2, 1.4 and 2e-3. The limits lie
    between the two.
    """

    kl: float = 1e-5  # KL(golden || answer) at any position, in nats
    tie: float = 1e-3  # another token is no error where the golden logits of the two are this close
    perplexity: float = 1e-4  # relative difference, either way
