"""Answers to the exercises of notebook 1, as cell code: typical wrong ones, with words of the feedback each must get,
and right ones that are not the solution."""


def tendency(friction="1.01 * x", forcing="+ 8.5", axis=", -1"):
    """The cubic model with something wrong in it."""
    return f"""
        def tendency(x):
            m3, m2, m1, p1, p2 = (x.roll(shift{axis}) for shift in (3, 2, 1, -1, -2))
            cubic = m2 * x * (p1 - m3) - m1 * p1 * (p2 - m2)
            return (p1 - m2) * m1 + 0.025 * cubic - {friction} {forcing}
    """


def weights(
    C="n * torch.eye(len(Y), dtype=Y.dtype) + (Y / R) @ Y.T", w="C.inverse() @ (Y / R) @ d", T="n**0.5 * root", n=1
):
    """The analysis in ensemble space with something wrong in it."""
    return f"""
        def weights(Y, d, R):
            n = len(Y) - {n}
            C = {C}
            s, U = torch.linalg.eigh(C)
            root = U / s.sqrt() @ U.T
            return {w}, {T}
    """


def with_model_error(grown="(s**2 + (len(E) - 1) * std**2).sqrt()", zero="grown[s < 1e-10 * s[0]] = 0.0"):
    """SQRT-CORE with something wrong in it."""
    return f"""
        def with_model_error(E, std):
            mean, X = anomalies(E)
            U, s, Vt = torch.linalg.svd(X, full_matrices=False)
            grown = {grown}
            {zero}
            return mean + (U * grown) @ Vt
    """


def ratio(spread="E.var(-2).mean().sqrt()", error="(E.mean(-2) - truth).square().mean().sqrt()"):
    """The ratio of a spread to an error."""
    return f"""
        def spread_over_error(E, truth):
            return {spread} / {error}
    """


WRONG = {
    "cubic_tendency": [
        (
            """
            def tendency(x, F=8.5, friction=1.01, nu=0.025):
                m3, m2, m1, p1, p2 = (x.roll(shift, -1) for shift in (-3, -2, -1, 1, 2))
                cubic = m2 * x * (p1 - m3) - m1 * p1 * (p2 - m2)
                return (p1 - m2) * m1 + nu * cubic - friction * x + F
            """,
            "mirror image",
        ),
        ("tendency = CubicLorenz96(cubic=0.0).tendency", "cubic term is missing"),
        ("tendency = physical.tendency", "the one we have"),
        ("tendency = nature", "each index"),
        (tendency(friction="x"), "your factor is 1"),
        (tendency(friction="-1.01 * x"), "it slows down"),
        (tendency(forcing=""), "forcing $F$ is missing"),
        (tendency(axis=""), "give `roll` its axis"),
    ],
    "ensemble_space": [
        (weights(n=0), "not by $N_e$"),
        (weights().replace("/ R", "/ R**2"), "do not square"),
        (weights().replace("/ R", "/ R.sqrt()"), "no root"),
        (weights().replace("/ R", "* R"), "*large* weight"),
        (weights(w="-C.inverse() @ (Y / R) @ d"), "wrong sign"),
        (weights(w="C.inverse() @ Y @ d"), "not that of the ETKF"),
        (weights(w="(Y / R) @ d / n"), "not that of the ETKF"),
        (weights(T="root"), "factor $\\sqrt{N_e - 1}$"),
        (weights(T="n**0.5 * C.inverse()"), "$T$ is a *root*"),
        (weights(T="n**0.5 * torch.linalg.cholesky(C.inverse())"), "not the symmetric one"),
        (weights(T="torch.eye(len(Y))"), "$T$ is not"),
        (weights(w="d"), "w has shape"),
        (weights(T="n**0.5 * C**-0.5"), "needs `eigh`"),
        (weights(T="n**0.5 * torch.linalg.cholesky(C).inverse()"), "not the symmetric one"),
        (weights(w="T", T="").replace("return T, ", "return root"), "Return two things, `w` and `T`"),
    ],
    "repaired_inflation": [
        ("inflated = lambda E, factor: factor * E", "whole ensemble"),
        ("inflated = lambda E, factor: E.mean() + factor**2 * (E - E.mean())", "one number for all"),
        ("inflated = lambda E, factor: E.mean(0) + factor**2 * (E - E.mean(0))", "*square*"),
        ("inflated = lambda E, factor: inflate(E, factor**0.5)", "*root*"),
        ("inflated = lambda E, factor: E.mean(0) + factor * (E - E.mean(0))", "batch"),
        ("inflated = additive_noise", "not just multiplied"),
    ],
    "smallest_inflation": [
        ("smallest = 0.08", "the part above 1"),
        ("smallest = 0.95", "shrinks"),
        ("smallest = 1.0", "are lost"),
        ("smallest = 1.04", "are lost"),
        ("smallest = 1.2", "no smaller one"),
        ("smallest = 3", "no smaller one"),
        ("smallest = 4", "blows the filter up"),
        ("smallest = 6", "in percent"),
        ("smallest = 1e9", "blows the filter up"),
    ],
    "model_error_without_noise": [
        ("with_model_error = additive_noise", "you draw noise"),
        (with_model_error("(s**2 + std**2).sqrt()"), "$N_e - 1$ is missing"),
        (with_model_error("(s**2 + len(E) * std**2).sqrt()"), "not $N_e$"),
        (with_model_error("s + (len(E) - 1) ** 0.5 * std"), "*variances* add"),
        (with_model_error("(s**2 + (len(E) - 1) * std).sqrt()"), "its square"),
        (with_model_error(zero=""), "The mean has moved"),
        (with_model_error("torch.where(s > 0, (s**2 + (len(E) - 1) * std**2).sqrt(), s)", ""), "not with 0"),
        (with_model_error().replace("mean + (U", "(U"), "add the mean"),
        ("with_model_error = lambda E, std: inflate(E, 1 + std)", "not $P"),
    ],
    "small_ensemble": [
        ("radius = 40", "Lost"),
        ("radius = float('inf')", "without localisation"),
        ("radius = 10", "Lost"),
        ("radius = 6", "Alive, but"),
        ("radius = 4", "Alive, but"),
        ("radius = 0", "more than zero"),
        ("radius = 1e-9", "hardly count"),
        ("radius = 0.5", "hardly count"),
    ],
    "spread_to_error": [
        (ratio("(E.mean(-2) - truth).square().mean().sqrt()", "E.var(-2).mean().sqrt()"), "turn it round"),
        (ratio("E.var(-2).mean()", "(E.mean(-2) - truth).square().mean()"), "take the root"),
        (ratio("E.var(-2, correction=0).mean().sqrt()"), "divide by $N_e$"),
        (ratio(error="(E.mean(-2) - truth).abs().mean()"), "no RMSE"),
        (ratio("E.std(-2).mean()"), "average the *variances*"),
        (ratio("E.std(-2).mean()", "(E.mean(-2) - truth).abs().mean()"), "Means of absolute values"),
        (ratio(error="(E - truth[:, None]).square().mean().sqrt()"), "single members"),
        (ratio("E.std()"), "over the members"),
        (
            """
            def spread_over_error(E, truth):
                return (E.var(-2).mean(-1).sqrt() / rmse(E.mean(-2), truth)).mean()
            """,
            "mean of ratios",
        ),
        (
            """
            def spread_over_error(E, truth):
                return E.var(-2).mean(-1).sqrt() / rmse(E.mean(-2), truth)
            """,
            "is a mean missing",
        ),
        (ratio("E.var(0).mean().sqrt()"), "Which axis"),
        (ratio("E.var(1).mean(-1).sqrt().mean()", "rmse(E.mean(1), truth).mean()"), "root at each time"),
        (ratio(error="(anomalies(E)[0] - truth).square().mean().sqrt()"), "all times with all others"),
    ],
    "rank_shapes": [
        ('u_shape, dome, slope = "C", "B", "A"', "too close together"),
        ('u_shape, dome, slope = "B", "A", "C"', "too far apart"),
        ('u_shape, dome, slope = "B", "C", "B"', "not symmetric"),
        ('u_shape, dome, slope = "D", "C", "A"', "stays flat"),
    ],
    "quiet_divergence": [
        ('sign = "A"', "*believes*"),
        ('sign = "B"', "needs the truth"),
        ('sign = "D"', "not the one outside"),
    ],
}

RIGHT = {
    "ensemble_space": [
        """
        def weights(Y, d, R):
            n = len(Y) - 1
            C = n * torch.eye(len(Y)) + Y @ torch.diag(1 / R) @ Y.T
            U, s, Vt = torch.linalg.svd(C)
            return [C.inverse() @ Y @ (d / R), n**0.5 * U @ torch.diag(s**-0.5) @ Vt]
        """
    ],
    "model_error_without_noise": [
        with_model_error("torch.where(s > 1e-9, (s**2 + (len(E) - 1) * std**2).sqrt(), s)", ""),
    ],
    "small_ensemble": ["radius = 1", "radius = 3.5"],
    "rank_shapes": ['u_shape, dome, slope = "b", "C.", " a"'],
    "spread_to_error": [ratio("E.var(1).mean().sqrt()", "rmse(E.mean(1).flatten(), truth.flatten())")],
}
