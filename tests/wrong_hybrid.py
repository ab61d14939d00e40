"""Typical wrong answers to the exercises of notebook 3, as they would stand in a cell, and words of their feedback."""

GROWTH = """
    def growth_rate(step, x0, n_steps, dt):
        first = {first}
        x, y = x0, x0 + first * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
        d0 = (y - x).norm(dim=-1)
        for _ in range(n_steps):
            x, y = step(x), step(y)
        d = (y - x).norm(dim=-1)
        return {rate}
"""
WARMER = """
    from dataclasses import replace

    stronger, updated = replace(nature, forcing=10.5), replace(physical, forcing={forcing})
    new_starts = {starts}
    new_runs = trajectory(stronger, new_starts, 50).expand(2, -1, -1, -1)
    t50 = [
        skill_horizon(forecast_errors(step, new_runs), float(new_runs.std()) / 2, cfg.dt).mean()
        for step in (updated, HybridModel(updated, stages.correction(cfg).select(slice(0, 2))))
    ]
    new_threshold, gain = float(new_runs.std()) / 2, {answer}
"""
TRUE_STARTS = "stages.forecast_truth(cfg)[:200, -1]"
SETTLED = f"repeated(stronger, 200)({TRUE_STARTS})"
PASS = """
    def second_pass(states, model, old, learn):
        hybrid = HybridModel(model, old)
        inputs, targets = training_pairs(states, {pairs})
        correction = learn(inputs, targets)
        return {returned}
"""
CHI2 = "from mooc_da.exercises._hybrids import innovations_over_expected\nold, new = innovations_over_expected()\n"

WRONG = {
    "step_of_hybrid": [
        (
            """
            def hybrid_step(x, model, correction):
                x = model(x)
                return x + correction(x)
            """,
            "the *new* state",
        ),
        ("hybrid_step = lambda x, model, correction: model(x + correction(x))", "*before* the step"),
        ("hybrid_step = lambda x, model, correction: model(x) + 0.05 * correction(x)", "No `dt` here"),
        (
            """
            def hybrid_step(x, model, correction):
                increment = correction(x)
                x += model(x) - x + increment
                return x
            """,
            "in place",
        ),
        ("hybrid_step = lambda x, model, correction: x + (model(x) - x) + correction(x)", "only up to rounding"),
        ("hybrid_step = lambda x, model, correction: model(x)", "physical model alone"),
        ("hybrid_step = lambda x, model, correction: model(x) - correction(x)", "The sign"),
        ("hybrid_step = lambda x, model, correction: (model(x) + correction(x)).float()", "single precision"),
    ],
    "saturation_level": [
        ("saturation = lambda n: 2**0.5", "that is one forecast"),
        ("saturation = lambda n: (2 / n) ** 0.5", "does not average the truth"),
        ("saturation = lambda n: n**-0.5", "the truth scatters, too"),
        ("saturation = lambda n: 1", "very large ensemble"),
        ("saturation = lambda n: 1 + 1 / n", "mean *square*"),
        ("saturation = lambda n: 1 + n**-0.5", "add as *squares*"),
        ("saturation = lambda n: (1 + n) ** 0.5", "not $n s^2$"),
        ("saturation = lambda n: (1 - 1 / n) ** 0.5", "also in a difference"),
        ("saturation = lambda n: float(stages.forecast_truth(cfg).std()) * (1 + 1 / n) ** 0.5", "leave the standard"),
        ("saturation = lambda n: 2 + 1 / n", "Add the mean squares"),
    ],
    "horizon_by_hand": [
        ("my_horizon = lambda errors, threshold, dt: skill_horizon(errors, threshold, 1)", "in steps"),
        (
            "my_horizon = lambda errors, threshold, dt: (errors > threshold).nonzero()[0] * dt",
            "*between* two leads",
        ),
        ("my_horizon = lambda errors, threshold, dt: (errors < threshold).nonzero()[0] * dt", "first lead *below*"),
        (
            """
            def my_horizon(errors, threshold, dt):
                k = int((errors <= threshold).nonzero()[-1]) + 1
                return (k - (errors[k] - threshold) / (errors[k] - errors[k - 1])) * dt
            """,
            "The *first* time counts",
        ),
        (
            """
            def my_horizon(errors, threshold, dt):
                k = int((errors > threshold).int().argmax())
                if k == 0:
                    return (len(errors) - 1) * dt
                return (k - (errors[k] - threshold) / (errors[k] - errors[k - 1])) * dt
            """,
            "you say 0.50: return `torch.nan`",
        ),
        (
            """
            def my_horizon(errors, threshold, dt):
                k = int((errors > threshold).nonzero()[0])
                return (k - (threshold - errors[k - 1]) / (errors[k] - errors[k - 1])) * dt
            """,
            "wrong way round",
        ),
        (
            """
            import numpy as np

            def my_horizon(errors, threshold, dt):
                return np.interp(threshold, errors, dt * np.arange(len(errors)), right=np.nan)
            """,
            "may end below",
        ),
        (
            """
            import numpy as np

            def my_horizon(errors, threshold, dt):
                if len(errors) < 10 or errors.max() <= threshold:
                    return float(skill_horizon(errors, threshold, dt))
                return np.interp(threshold, errors, dt * np.arange(len(errors)))
            """,
            "goes up and down",
        ),
        (
            """
            def my_horizon(errors, threshold, dt):
                if errors[-1] <= threshold:
                    return torch.nan
                return float(skill_horizon(errors, threshold, dt))
            """,
            "may end below",
        ),
        (
            """
            def my_horizon(errors, threshold, dt):
                for k in range(1, len(errors)):
                    if errors[k] > threshold:
                        return (k - (errors[k] - threshold) / (errors[k] - errors[k - 1])) * dt
            """,
            "ends without a `return`",
        ),
    ],
    "surviving_advantage": [
        ("survives_02, survives_1 = 0.83, 0.23", "ratio of the hybrid's horizons"),
        ("survives_02, survives_1 = 0.88, 0.55", "*differences* of horizons"),
        ("survives_02, survives_1 = 0.27, 0.94", "share that is *lost*"),
        ("survives_02, survives_1 = 72, 6.5", "between 0 and 1"),
        ("survives_02, survives_1 = 0.72, 0.16", "noise 1.0: not 0.16"),
    ],
    "slow_clock": [
        ("clock = 'A'", "equally often"),
        ("clock = 'B'", "same spectrum"),
        ("clock = 'D'", "at the wrong times"),
    ],
    "growth_of_differences": [
        (GROWTH.format(first=1e-9, rate="(d / d0).log().mean() / n_steps"), "per *step*"),
        (GROWTH.format(first=1e-9, rate="(d / d0).log().mean()"), "whole run"),
        (GROWTH.format(first=1e-9, rate="(d - d0).mean() / (n_steps * dt)"), "logarithm of the *factor*"),
        (GROWTH.format(first=1e-9, rate="(d / d0).mean() / (n_steps * dt)"), "rate of a *logarithm*"),
        (GROWTH.format(first=1e-9, rate="(d.mean() / d0.mean()).log() / (n_steps * dt)"), "in each run *first*"),
        (GROWTH.format(first=1e-3, rate="(d / d0).log().mean() / (n_steps * dt)"), "difference is not small"),
    ],
    "another_step": [
        ("rescaled = lambda correction, old_dt, new_dt: correction", "nothing has changed"),
        ("rescaled = lambda correction, old_dt, new_dt: lambda x: correction(x) * old_dt / new_dt", "wrong way round"),
        (
            "rescaled = lambda correction, old_dt, new_dt: lambda x: correction(x) * (new_dt / old_dt) ** 0.5",
            "random errors",
        ),
        ("rescaled = lambda correction, old_dt, new_dt: lambda x: correction(x) / old_dt", "a tendency, per MTU"),
        (
            "rescaled = lambda correction, old_dt, new_dt: lambda x: correction(x) / round(old_dt / new_dt)",
            "Do not round it",
        ),
    ],
    "innovations_of_hybrid": [
        (CHI2 + "consistency, change = new[100:].mean(), 'A'", "*tenth* of the model error"),
        (CHI2 + "consistency, change = old[100:].mean().sqrt(), 'A'", "standard deviations"),
        (CHI2 + "consistency, change = old.mean(), 'A'", "forgets its start"),
        ("consistency, change = 0.5, 'A'", "end with the *assimilated* ones"),
        (CHI2 + "consistency, change = old[100:].mean(), 'B'", "*larger* innovations than come"),
        (CHI2 + "consistency, change = old[100:].mean(), 'C'", "only inflates"),
        (CHI2 + "consistency, change = old[100:].mean(), 'D'", "not at hand"),
    ],
    "second_pass_repaired": [
        (PASS.format(pairs="hybrid", returned="HybridModel(model, correction)"), "has got lost"),
        (PASS.format(pairs="model", returned="HybridModel(hybrid, correction)"), "twice"),
        (PASS.format(pairs="model", returned="HybridModel(model, old)"), "That is the first correction"),
        (PASS.format(pairs="physical", returned="HybridModel(physical, correction)"), "Use the argument `model`"),
    ],
    "other_climate": [
        (WARMER.format(forcing=8.0, starts=SETTLED, answer="t50[1] / t50[0]"), "forcing should rise, too"),
        (
            WARMER.format(forcing=10.0, starts=TRUE_STARTS, answer="t50[1] / t50[0]"),
            "lived with the new forcing for 200",
        ),
        (WARMER.format(forcing=10.0, starts=SETTLED, answer="t50[0] / t50[1]"), "Upside down"),
        (
            WARMER.format(forcing=10.0, starts=SETTLED, answer="2.2"),
            "scored on the new runs",
        ),
        ("new_threshold, gain = float(stages.forecast_truth(cfg).std()) / 2, 1.65", "of the old climate"),
    ],
}

RIGHT = {
    "saturation_level": [
        "import math\nsaturation = lambda n: math.sqrt(1 + 1 / n)",
        """
        def saturation(n):
            states = stages.forecast_truth(cfg)[:, -1]
            mean = torch.stack([states.roll(k, 0) for k in range(1, n + 1)]).mean(0)
            return (mean - states).square().mean().sqrt() / states.std()
        """,
    ],
    "horizon_by_hand": [
        "my_horizon = skill_horizon",
        """
        def my_horizon(errors, threshold, dt):
            for k in range(1, len(errors)):
                if errors[k] > threshold:
                    return (k - (errors[k] - threshold) / (errors[k] - errors[k - 1])) * dt
            return float("nan")
        """,
    ],
    "another_step": ["rescaled = lambda correction, old_dt, new_dt: lambda x: correction(x) * new_dt / old_dt"],
    "second_pass_repaired": [PASS.format(pairs="hybrid", returned="HybridModel(hybrid, correction)")],
    "other_climate": [WARMER.format(forcing=10.0, starts=SETTLED, answer="t50[1] / t50[0]")],
}
