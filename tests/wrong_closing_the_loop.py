"""Typical wrong answers to the exercises of notebook 6, and words of the feedback each must get."""

SLOPE = "def fitted_slope(a, signal, input_noise, target_noise): return {}"
REPEATED = """
    def remaining(n, s, b):
        r = 1.0
        for _ in range(n):
            {}
        return {}

    def limit(s, b):
        return {}
"""
STEP = "r = r - (s * r - b)"
COST = "def observation_cost(x, y, precision): return {}"
KEEP = """
    def keep(likelihood):
        best, kept, last = likelihood[0], torch.zeros(likelihood.shape[1], dtype=torch.long), likelihood[0]
        for number in range(1, len(likelihood)):
            row = likelihood[number]
            better = row > best
            {}
                break
            kept[better] = number
            best, last = torch.maximum(best, row), row
        return {}
"""
PASS = """
    def one_pass(y, truth, train, run, sigmas):
        first = round(0.8 * len(y))
        network = train(y{})
        runs = [run(network, s, y) for s in sigmas]
        told = [{} for r in runs]
        return {}
"""
CHOSEN = "network, sigmas[told.index(max(told))]"
HELD_OUT = 'r.diagnostics["log_likelihood"][first:].mean()'
LEAKY = PASS.format("", "-(r.analysis - truth).square().mean()", CHOSEN)

WRONG = {
    "noise_in_the_input": [
        (SLOPE.format("a"), "does not average out"),
        (SLOPE.format("a * signal**2 / (signal**2 + input_noise**2 + target_noise**2)"), "does not turn it"),
        (SLOPE.format("a * signal**2 / (signal**2 + target_noise**2)"), "by the noise of the *target*"),
        (SLOPE.format("a * signal / (signal + input_noise)"), "as *squares*"),
        (SLOPE.format("a * signal / (signal**2 + input_noise**2)**0.5"), "is the correlation"),
        (SLOPE.format("a * (signal**2 + input_noise**2) / signal**2"), "wrong way round"),
        (SLOPE.format("a * input_noise**2 / (signal**2 + input_noise**2)"), "*lost*"),
        (SLOPE.format("signal**2 / (signal**2 + input_noise**2)"), "factor alone"),
        (SLOPE.format("a + input_noise"), "it should be $a$"),
    ],
    "what_repetition_leaves": [
        (REPEATED.format("r = r - s * r", "r", "b / s"), "left $b$ out"),
        (REPEATED.format("r = r - s * r", "r + b if n else 1.0", "b / s"), "into account once"),
        (REPEATED.format("r = r - s * r", "r + n * b", "b / s"), "take a share of that off"),
        (REPEATED.format("r = r - (s * r + b)", "r", "b / s"), "sign of $b$"),
        (REPEATED.format(STEP, "1 - r", "b / s"), "has *found*. What remains of 1?"),
        (REPEATED.format("r = s * r", "r", "b / s"), "share that it leaves"),
        (REPEATED.format("r = r - (s - b)", "r", "b / s"), "*still left*"),
        (REPEATED.format("r = max(0.0, r - (s - b))", "r", "b / s"), "never too much"),
        (REPEATED.format("r = r * (1 - s + b)", "r", "b / s"), "no share of $r_n$"),
        (REPEATED.format(STEP, "r - (s * r - b)", "b / s"), "one pass too many"),
        (REPEATED.format(STEP, "b / s", "b / s"), "after $n$ passes"),
        (REPEATED.format(STEP, "r", "0"), "brings $b$ anew"),
        (REPEATED.format(STEP, "r", "b"), "last pass alone"),
        (REPEATED.format(STEP, "r", "b / (1 - s)"), "sum of that series"),
        (REPEATED.format(STEP, "r", "b * s"), "in balance"),
        (REPEATED.format(STEP, "r", "1 - b / s"), "*found* in the end"),
    ],
    "cost_of_observations": [
        (COST.format("(x - y).square().mean()"), "the unobserved places count"),
        (COST.format("(precision * (x - y)**2).mean()"), "zero times NaN is NaN"),
        (COST.format("torch.where(precision > 0, precision * (x - y)**2, 0.0).mean()"), "Mask first"),
        (COST.format("(precision * (x - y)**2).nansum() / x.numel()"), "its *gradient* is NaN"),
        (COST.format("(precision * (x - y.nan_to_num())**2).sum() / (precision > 0).sum()"), "*observed* places"),
        (COST.format("((precision > 0) * (x - y.nan_to_num())**2).mean()"), "as if its error variance were 1"),
        (COST.format("(precision**2 * (x - y.nan_to_num())**2).mean()"), "do not square it"),
        (COST.format("(precision * (x - y.nan_to_num())**2).mean().sqrt()"), "that is a root"),
        (COST.format("(precision * (x - y.nan_to_num())**2).sum()"), "The *mean* is asked for"),
        (COST.format("(precision * (x - y.nan_to_num())**2).mean() / 2"), "no one half"),
        (COST.format("(precision * (x - y.nan_to_num()).abs()).mean()"), "with its *square*"),
        (COST.format("(precision * (x - y.nan_to_num())**2).mean().detach()"), "without a gradient"),
        (COST.format("(precision * (x - y.nan_to_num())**2).mean((0, 2))"), "is a mean missing"),
    ],
    "when_to_stop": [
        ("def keep(likelihood): return likelihood.argmax(0)", "never made"),
        ("def keep(likelihood): return likelihood.argmax(0) + 1", "Count them from 0"),
        ("def keep(likelihood): return likelihood.argmin(0)", "least likely"),
        ("def keep(likelihood): return likelihood.max(0).values", "In which passes were they reached"),
        (
            "def keep(likelihood): return likelihood.mean(1).argmax().expand(likelihood.shape[1])",
            "the same pass for all",
        ),
        (KEEP.format("if not better.all():", "kept"), "and the loop keeps [2, 3]"),
        (KEEP.format("if row.mean() < last.mean():", "kept"), "you stop too early"),
        (KEEP.format("if not (row > last).any():", "kept"), "you go on too long"),
        (
            "def keep(likelihood): return ((likelihood.diff(dim=0) > 0).cumprod(0)).sum(0)",
            "you stop an experiment that got worse once",
        ),
        ("def keep(likelihood): return likelihood.argmax()", "(2,) is asked for"),
    ],
    "leaking_loop": [
        (LEAKY, "nothing is held out"),
        (PASS.format("", HELD_OUT, CHOSEN), "nothing is held out"),
        (PASS.format("[:first]", "-(r.analysis - truth).square().mean()", CHOSEN), "the truth has chosen it"),
        (PASS.format("[:first]", "-(r.analysis - truth)[first:].square().mean()", CHOSEN), "the truth has chosen it"),
        (PASS.format("[:first]", 'r.diagnostics["log_likelihood"].mean()', CHOSEN), "*learnt* from"),
        (PASS.format("[:first]", 'r.diagnostics["log_likelihood"][:first].mean()', CHOSEN), "*learnt* from"),
        (PASS.format("[:first]", HELD_OUT, "network, sigmas[told.index(min(told))]"), "*least* likely"),
        (PASS.format("[len(y) - first:]", HELD_OUT, CHOSEN), "the future"),
        (PASS.format("[:first // 2]", HELD_OUT, CHOSEN), "Four fifths may be used"),
        (PASS.format("[:first]", HELD_OUT, "network, told.index(max(told))"), "none of the candidates"),
        (PASS.format("[:first]", HELD_OUT, "network, sigmas[0 * len(told) + 1]"), "likelier with another"),
        (PASS.format("[:first]", HELD_OUT, "sigmas[told.index(max(told))]"), "Return two things"),
    ],
}

RIGHT = {
    "what_repetition_leaves": [
        """
            def remaining(n, s, b): return b / s + (1 - s)**n * (1 - b / s)
            def limit(s, b): return remaining(10_000, s, b)
        """,
    ],
    "cost_of_observations": [
        COST.format("(precision * (x - y.nan_to_num())**2).mean()"),
        """
            def observation_cost(x, y, precision):
                seen = precision > 0
                return (precision[seen] * (x[seen] - y[seen])**2).sum() / x.numel()
        """,
    ],
    "when_to_stop": [
        """
            def keep(likelihood):
                n = 1
                while n < len(likelihood) and (likelihood[n] > likelihood[:n].max(0).values).any():
                    n += 1
                return likelihood[:n].argmax(0)
        """,
    ],
    "leaking_loop": [
        """
            def one_pass(y, truth, train, run, sigmas):
                first = int(0.8 * len(y))
                network = train(y[:first - 2])
                told = [run(network, s, y[first:]).diagnostics["log_likelihood"].mean() for s in sigmas]
                return network, torch.tensor(sigmas)[torch.stack(told).argmax()]
        """,
    ],
}
