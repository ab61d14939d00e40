"""Typical wrong answers to the exercises of notebook 4, and words of the feedback each must get."""

WEIGHTS = """
    def weigh(HE, y, R):
        log_likelihood = {}
        w = torch.softmax(log_likelihood, -1)
        return w, {}
"""

SEARCH = """
    def best_x(x_b, B, y, R):
        x = x_b + B**0.5 * torch.linspace(-6, 6, 20001, dtype=torch.float64)
        return x[({} * ({}) ** 2 / {} + (y - 8 * torch.tanh(x / 8)) ** 2 / {}).argmin()]
"""

GRADIENT = """
    def gradient(x_0, x_b, B, step, H, ys, R):
        x_0 = x_0.clone().requires_grad_()
        x, J = x_0, {}
        for y in ys:
            J = J + {} * ((y - H(x)) ** 2 / R).{}()
            x = step(x{})
        return torch.autograd.grad(J, x_0)[0]
"""
BACKGROUND = "0.5 * (x_0 - x_b) @ torch.linalg.solve(B, x_0 - x_b)"

WRONG = {
    "errors_that_come_back": [
        ("actual = believed = (5 / 16) ** 0.5", "treats the operator's error as noise"),
        ("actual, believed = 0.25, 0.25", "this is the noise alone"),
        ("actual, believed = 5**0.5, 5**0.5", "error of one reading"),
        ("actual, believed = 2.25, 0.56", "add in variance"),
        ("actual, believed = 2.0, 0.56", "nearly"),
        ("actual, believed = 4.0625, 0.3125", "take the root"),
        ("actual, believed = 2.0156, 0.3125", "`believed`: this is a variance"),
        ("actual, believed = 2.0156, 2.0156", "another number than what is true"),
        ("actual, believed = 3.0, 0.56", "the same in every reading"),
    ],
    "black_box": [
        ("who = 'A'", "need its derivative too"),
        ("who = 'B'", "the very ones that need the derivative"),
        ("who = 'D'", "not needed by all"),
        ("who = 'ETKF'", "one of the letters"),
    ],
    "saturated_channel": [
        ("def best_x(x_b, B, y, R): return x_b + B / (B + R) * (y - x_b)", "as if the channel saw $x$"),
        (
            """
            def best_x(x_b, B, y, R):
                t = torch.tanh(torch.tensor(x_b / 8, dtype=torch.float64))
                h = 1 - t**2
                return x_b + B * h / (B * h**2 + R) * (y - 8 * t)
            """,
            "one step with the tangent",
        ),
        (SEARCH.format(1, "x - x_b", "R", "B"), "give $B$ the place of $R$"),
        (SEARCH.format(1, "x - x_b", 1, 1), "count both terms alike"),
        (SEARCH.format(0, "x - x_b", "B", "R"), "forget the background"),
        (SEARCH.format(1, "x + x_b", "B", "R"), "a lower cost is elsewhere"),
    ],
    "stops_listening": [
        ("deaf_after, settled_gain = 34, 0.148", "off by one"),
        ("deaf_after, settled_gain = 0.03, 0.148", "1/2, 1/3"),
        ("deaf_after, settled_gain = 33, 1 / 1001", "dies out"),
        ("deaf_after, settled_gain = 33, 0.328", "square it"),
        ("deaf_after, settled_gain = 33, 0.1733", "the variance $P$ of the forecast"),
        ("deaf_after, settled_gain = 33, 0.1287", "with the model error in it"),
        ("deaf_after, settled_gain = 33, 0.5", "until nothing changes"),
    ],
    "particle_weights": [
        (
            """
            def weigh(HE, y, R):
                w = torch.exp(-0.5 * ((y - HE) ** 2 / R).sum(-1))
                return w, 1 / (w**2).sum()
            """,
            "they are probabilities",
        ),
        (
            """
            def weigh(HE, y, R):
                w = torch.exp(-0.5 * ((y - HE) ** 2 / R).sum(-1))
                w = w / w.sum()
                return w, 1 / (w**2).sum()
            """,
            "Subtract the largest log-likelihood",
        ),
        (
            """
            def weigh(HE, y, R):
                w = torch.log_softmax(-0.5 * ((y - HE) ** 2 / R).sum(-1), -1)
                return w, 1 / (w.exp()**2).sum()
            """,
            "Are these still the logarithms",
        ),
        (WEIGHTS.format("-0.5 * ((y - HE) / R).square().sum(-1)", "1 / (w**2).sum()"), "$R$ holds variances"),
        (WEIGHTS.format("-((y - HE) ** 2 / R).sum(-1)", "1 / (w**2).sum()"), "one half"),
        (WEIGHTS.format("-0.5 * ((y - HE) ** 2 / R).sum(-1)", "1 / w.max()"), "one over the *largest* weight"),
        (WEIGHTS.format("-0.5 * ((y - HE) ** 2 / R).sum(-1)", "(w > 1e-3).sum()"), "with normalised weights"),
        ("def weigh(HE, y, R): return torch.softmax(-0.5 * ((y - HE) ** 2 / R).sum(-1), -1)", "Return two things"),
    ],
    "window_gradient": [
        (GRADIENT.format("0.0", "0.5", "mean", ".detach()"), "Still there: the chain"),
        (GRADIENT.format(BACKGROUND, "0.5", "mean", ".detach()"), "1 of 3 bugs found"),
        (GRADIENT.format("0.0", "0.5", "sum", ""), "2 of 3 bugs found. Still there: nothing holds the start"),
        (GRADIENT.format(BACKGROUND, "0.5", "mean", ""), "2 of 3 bugs found. Still there: the misfits"),
        (GRADIENT.format(BACKGROUND, "0.5", "sum", ".detach()"), "2 of 3 bugs found. Still there: the chain"),
        (GRADIENT.format("0.5 * (x_0 - x_b) @ B @ (x_0 - x_b)", "0.5", "sum", ""), "*inverse* of $B$"),
        (GRADIENT.format("(x_0 - x_b) @ torch.linalg.solve(B, x_0 - x_b)", "1.0", "sum", ""), "Twice the gradient"),
        (GRADIENT.format(BACKGROUND, "1.0", "sum", ""), "term by term"),
    ],
}
