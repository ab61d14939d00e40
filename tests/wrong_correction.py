"""Typical wrong answers to the exercises of notebook 2, as cells, and words of the feedback each must get."""

WRONG = {
    "pairs_by_hand": [
        (
            """
            def make_pairs(analysis, step):
                before = analysis[..., :-1, :]
                return before, before - step(before)
            """,
            "at the same time",
        ),
        (
            "def make_pairs(analysis, step): return analysis[..., :-1, :], analysis[..., 1:, :]",
            "Subtract what the model",
        ),
        (
            "def make_pairs(analysis, step): return analysis[..., :-1, :], analysis.diff(dim=-2)",
            "how the state changed",
        ),
        (
            """
            def make_pairs(analysis, step):
                before, after = analysis[..., :-1, :], analysis[..., 1:, :]
                return before, after - step(after)
            """,
            "stepped the later analysis",
        ),
        (
            """
            def make_pairs(analysis, step):
                before, after = analysis[..., :-1, :], analysis[..., 1:, :]
                return before, step(before) - after
            """,
            "The sign",
        ),
        (
            """
            def make_pairs(analysis, step):
                before, after = analysis[..., :-1, :], analysis[..., 1:, :]
                return after, after - step(before)
            """,
            "the *later* analyses",
        ),
        ("def make_pairs(analysis, step): return analysis, analysis - step(analysis)", "nothing follows it"),
        (
            "def make_pairs(analysis, step): return analysis[:-1], analysis[1:] - step(analysis[:-1])",
            "The input has shape",
        ),
        (
            """
            def make_pairs(analysis, step):
                return analysis[:, :-1], analysis[:, 1:] - step(analysis[:, :-1])
            """,
            "write `analysis[..., :-1, :]`",
        ),
        (
            """
            def make_pairs(analysis, step):
                before = analysis[..., :-1, :]
                return before, analysis[..., 1:, :] - physical(before)
            """,
            "Use the argument `step`",
        ),
        ("def make_pairs(analysis, step): return analysis[..., 1:, :] - step(analysis[..., :-1, :])", "two things"),
    ],
    "guess_from_target": [
        ("def factor(error, target): return (error * target).sum() / error.square().sum()", "Turn the question round"),
        ("def factor(error, target): return error.square().sum() / (error * target).sum()", "enlarges the noise"),
        ("def factor(error, target): return (error.square().mean() / target.square().mean()).sqrt()", "no noise"),
        (
            """
            def factor(error, target):
                return (error * target).sum() / (error.square().sum() * target.square().sum()).sqrt()
            """,
            "A correlation knows nothing",
        ),
        (
            """
            def factor(error, target):
                t = target - target.mean()
                return (error * t).sum() / t.square().sum()
            """,
            "subtracted the means",
        ),
        ("def factor(error, target): return 0.5", "your guess errs by"),
    ],
    "r2_from_correlation": [
        ("def r2_from(r, s): return r**2", "of the best size only"),
        ("def r2_from(r, s): return 2 * r * s", "prediction itself is missing"),
        ("def r2_from(r, s): return r * s - s**2", "comes twice"),
        ("def r2_from(r, s): return 1 - (1 - s) ** 2", "Where is $r$"),
        ("def r2_from(r, s): return r * s", "it should be 1"),
    ],
    "honest_split": [
        (
            """
            def split(n, fraction, gap):
                order = torch.randperm(n)
                n_validation = round(fraction * n)
                return order[n_validation + gap :], order[:n_validation]
            """,
            "Picked at random",
        ),
        (
            """
            def split(n, fraction, gap):
                first = n - round(fraction * n)
                return torch.arange(first), torch.arange(first, n)
            """,
            "There is no gap",
        ),
        (
            """
            def split(n, fraction, gap):
                n_validation = round(fraction * n)
                return torch.arange(n_validation + gap, n), torch.arange(n_validation)
            """,
            "validate on the past",
        ),
        (
            """
            def split(n, fraction, gap):
                first = n - round(fraction * n)
                return torch.arange(first), torch.arange(first + gap, n)
            """,
            "The *training* gives up the gap",
        ),
        (
            """
            def split(n, fraction, gap):
                first = n - round(fraction * n)
                return torch.arange(first + gap), torch.arange(first, n)
            """,
            "shares 5 times",
        ),
        (
            """
            def split(n, fraction, gap):
                first = n - round(fraction * n)
                return torch.arange(first - gap - 1), torch.arange(first, n)
            """,
            "leaves 6 times",
        ),
        (
            """
            def split(n, fraction, gap):
                first = n - int(fraction * n)
                return torch.arange(first - gap), torch.arange(first, n)
            """,
            "`int` and `//` cut off",
        ),
        (
            """
            def split(n, fraction, gap):
                first = n - round(fraction * n)
                return (0, first - gap), (first, n)
            """,
            "not only its start and end",
        ),
        (
            """
            def split(n, fraction, gap):
                first = n - round(fraction * n)
                return range(first - gap), range(first, n + 1)
            """,
            "beyond the last time",
        ),
    ],
    "seam": [
        (
            """
            def repaired(x, w):
                padded = nn.functional.pad(x, (2, 2))
                return sum(w[j] * padded[..., j : j + x.shape[-1]] for j in range(5))
            n_wrong = 10
            """,
            "still pads with zeros",
        ),
        (
            """
            def repaired(x, w):
                padded = nn.functional.pad(x, (2, 2), mode="reflect")
                return sum(w[j] * padded[..., j : j + x.shape[-1]] for j in range(5))
            n_wrong = 10
            """,
            "Reflected",
        ),
        (
            """
            def repaired(x, w):
                return sum(w[j] * x.roll(j - 2, -1) for j in range(5))
            n_wrong = 10
            """,
            "mirrored",
        ),
        (
            """
            def repaired(x, w):
                return sum(w[j] * x.roll(2 - j, -1) for j in range(5))
            n_wrong = 5
            """,
            "*each* side",
        ),
        (
            """
            def repaired(x, w):
                return sum(w[j] * x.roll(2 - j, -1) for j in range(5))
            n_wrong = 11
            """,
            "11 inputs influence",
        ),
        (
            """
            def repaired(x, w):
                return sum(w[j] * x.roll(2 - j, -1) for j in range(5))[..., 2:-2]
            n_wrong = 10
            """,
            "has shape",
        ),
    ],
    "learning_curves": [
        ("keep, harmful, cure = 200, 100, 'C'", "smallest *training* loss"),
        ("keep, harmful, cure = 20, 100, 'C'", "smallest validation loss"),
        ("keep, harmful, cure = 40, 60, 'C'", "still better than nothing"),
        ("keep, harmful, cure = 40, 100, 'B'", "still faster"),
        ("keep, harmful, cure = 40, 100, 'D'", "thermometer"),
    ],
    "why_beaten": [
        ("answer_beaten = 'A'", "ridge chooses nothing"),
        ("answer_beaten = 'B'", "The place matters little"),
        ("answer_beaten = 'D'", "drawn afresh"),
    ],
    "low_r2": [
        ("answer_low = 'A'", "not of the model's error"),
        ("answer_low = 'C'", "noisy targets"),
        ("answer_low = 'D'", "scores even less"),
    ],
    "white_noise": [
        (
            """
            (a, b), (c, d) = stages.pairs(cfg.fast(), "truth")
            fit = CubicRidge(a, b, ridge=cfg.ridge)
            rmse_white = (fit(c) - d).square().mean().sqrt()
            """,
            "without any noise",
        ),
        (
            """
            (a, b), _ = stages.pairs(cfg.fast(), "truth")
            noisy = b + 0.185 * torch.randn(b.shape, dtype=b.dtype, generator=seeded(1, "white"))
            fit = CubicRidge(a, noisy, ridge=cfg.ridge)
            rmse_white = (fit(a) - noisy).square().mean().sqrt()
            """,
            "do not score against noisy ones",
        ),
        (
            """
            (a, b), (c, d) = stages.pairs(cfg.fast(), "truth")
            noisy = b + 0.185 * torch.randn(b.shape, dtype=b.dtype, generator=seeded(1, "white"))
            fit = CubicRidge(a, noisy, ridge=cfg.ridge)
            rmse_white = (fit(c) - d).square().mean()
            """,
            "take its root",
        ),
        ("rmse_white = 0.053", "from analyses"),
        ("rmse_white = -0.03", "not negative"),
        (
            """
            (a, b), (c, d) = stages.pairs(cfg.fast(), "truth")
            noisy = b + 0.185**2 * torch.randn(b.shape, dtype=b.dtype, generator=seeded(1, "white"))
            rmse_white = (CubicRidge(a, noisy, ridge=cfg.ridge)(c) - d).square().mean().sqrt()
            """,
            "*standard deviation* of your noise",
        ),
        ("rmse_white = 0.025", "Is yours a longer one"),
    ],
}

SPLIT = """
    def split(n, fraction, gap):
        first = n - round(fraction * n)
        return {parts}
"""

RIGHT = {
    "pairs_by_hand": [
        """
        def make_pairs(analysis, step):
            inputs, targets = training_pairs(analysis, step)
            return [inputs, targets]
        """,
    ],
    "r2_from_correlation": [
        "import math\ndef r2_from(r, s): return r**2 - math.sqrt((s - r) ** 2) ** 2",
        """
        def r2_from(r, s):
            if s == r:
                return r**2
            return 1 - (1 - 2 * r * s + s**2)
        """,
        "def r2_from(r, s): return r.square() - (s - r).square()",
    ],
    "honest_split": [
        SPLIT.format(parts="set(range(first - gap)), set(range(first, n))"),
        SPLIT.format(parts="slice(0, first - gap), slice(first, None)"),
        SPLIT.format(parts="torch.arange(n) < first - gap, torch.arange(n) >= first"),
    ],
}
