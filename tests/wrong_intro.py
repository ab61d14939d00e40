"""Answers to the exercises of notebook 0, as cell code: typical wrong ones, with words of the feedback each must get,
and right ones that are not the solution."""


def cost(
    background="+ 0.5 * ((x[0] - x_b) ** 2).sum() / B", seen="x[k]", first=0, o="/ R", q="/ Q", penalty="+ L(theta)"
):
    """A joint cost with something wrong in it."""
    return f"""
        def cost(theta, x, y, x_b, M, H, L, B, Q, R):
            observed = sum(0.5 * ((y[k] - H(k, {seen})) ** 2).sum() {o} for k in range({first}, len(x)))
            model_error = 0.5 * ((x[1:] - M(theta, x[:-1])) ** 2).sum() {q}
            return observed + model_error {background} {penalty}
    """


def one_round(x="(y / R + theta * a / Q) / (1 / R + 1 / Q)", theta="(a * x / Q) / (a**2 / Q + 1 / P)"):
    """The two steps with something wrong in one of them."""
    return f"""
        def one_round(theta, y, a, R, Q, P):
            x = {x}
            theta = {theta}
            return x, theta
    """


WRONG = {
    "best_of_two": [
        ("best = lambda x_b, B, y, R: (x_b + y) / 2", "plain mean"),
        ("best = lambda x_b, B, y, R: (B * x_b + R * y) / (B + R)", "wrong sides"),
        ("best = lambda x_b, B, y, R: (x_b / B**0.5 + y / R**0.5) / (B**-0.5 + R**-0.5)", "without a root"),
        ("best = lambda x_b, B, y, R: x_b / B + y / R", "sum of the weights"),
        ("best = lambda x_b, B, y, R: y", "slope"),
    ],
    "useless_model": [
        ('no_model = "A"', "the other limit"),
        ('no_model = "B"', "contains $x_0$ only"),
        ('no_model = "D"', "*inverse* of $Q$"),
    ],
    "joint_cost": [
        (cost(background="- 0.5 * ((x[0] - x_b) ** 2).sum() / B"), "background term has a minus sign"),
        (cost(o="/ Q", q="/ R"), "swapped"),
        (cost(seen="x[k - 1]"), "*same* time"),
        (cost(first=1), "begins at $k = 0$"),
        (cost(penalty=""), "penalty is missing"),
        (cost(o="/ R**2"), "example of the text"),
        (cost(first=0, seen="x[min(k, 2)]"), "wrong for more times"),
        (
            cost().replace(
                "((x[1:] - M(theta, x[:-1])) ** 2).sum()",
                "sum(((x[k] - M(theta, x[k - 1])) ** 2).sum() for k in range(len(x)))",
            ),
            "starts at $k = 1$",
        ),
        ("def cost(theta, x, y, x_b, M, H, L, B, Q, R): print(x)", "is a `return` missing"),
        (cost(o="/ R**0.5", q="/ Q**0.5", background="+ 0.5 * ((x[0] - x_b) ** 2).sum() / B**0.5"), "no root"),
        (cost(o="/ R * 2", q="/ Q * 2", background="+ ((x[0] - x_b) ** 2).sum() / B"), "factors ½"),
        (cost(o="* R", q="* Q", background="+ 0.5 * ((x[0] - x_b) ** 2).sum() * B"), "*large* weight"),
        (cost().replace("x[1:] - M(theta, x[:-1])", "x - M(theta, x.roll(1, 0))"), "*last* state"),
    ],
    "alternating_steps": [
        (one_round(x="y"), "observation as it is"),
        (one_round(x="(y / Q + theta * a / R) / (1 / R + 1 / Q)"), "weights are swapped"),
        (one_round(theta="x / a"), "penalty is missing"),
        (one_round(theta="(a * y / Q) / (a**2 / Q + 1 / P)"), "*analysis*"),
        (one_round(theta="(a * x / R) / (a**2 / R + 1 / P)"), "plays no part"),
        (one_round().replace("return x, theta", "return theta, x"), "Return `x, theta`"),
        (one_round().replace("return x, theta", "return x"), "Return two things, `x` and `theta`"),
        (one_round().replace("return x, theta", "return x, theta, y"), "Return two things"),
    ],
    "strong_penalty": [
        ('penalised = "A"', "does not contain it"),
        ('penalised = "B"', "old state"),
        ('penalised = "C"', "shrunk to zero"),
    ],
    "energy_keeping_term": [
        (
            """
            def keeping(x):
                m3, m2, m1, p1, p2 = (x.roll(shift, -1) for shift in (3, 2, 1, -1, -2))
                return m2 * x * (p1 - m3) - m1 * p1 * (p2 - m2)
            """,
            "both products",
        ),
        ("keeping = lambda x: (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1)", "not cubic"),
        ("keeping = lambda x: 0 * x", "does nothing"),
        ("keeping = lambda x: -(x**3)", "changes the energy of 20"),
        ("keeping = lambda x: -x.roll(1) * x.roll(-1) * (x.roll(-2) - x.roll(2))", "give `roll` its axis"),
        ("keeping = lambda x: x.sum(-1, keepdim=True) * x.roll(1, -1) * (x.roll(2, -1) - x.roll(-1, -1))", "far away"),
        (
            """
            def keeping(x):
                return x.roll(10, -1) * (x.roll(-10, -1) * x.roll(-20, -1) - x.roll(10, -1) * x.roll(20, -1))
            """,
            "far away",
        ),
    ],
}

RIGHT = {
    "useless_model": ['no_model = "c."', 'no_model = "(C)"'],
    "joint_cost": [
        cost().replace("x[1:] - M(theta, x[:-1])", "x.numpy()[1:] - M(theta, x.numpy()[:-1])"),
        """
        import numpy as np

        def cost(theta, x, y, x_b, M, H, L, B, Q, R):
            theta, x, y, x_b = (np.asarray(a) for a in (theta, x, y, x_b))
            total = L(theta) + ((x[0] - x_b) ** 2).sum() / (2 * B)
            for k in range(len(x)):
                total = total + ((y[k] - H(k, x[k])) ** 2).sum() / (2 * R)
                if k > 0:
                    total = total + ((x[k] - M(theta, x[k - 1])) ** 2).sum() / (2 * Q)
            return total
        """,
    ],
    "energy_keeping_term": [
        """
        def keeping(x):
            x = x.float()
            return -x.roll(1, -1) * x.roll(-1, -1) * (x.roll(-2, -1) - x.roll(2, -1))
        """,
        """
        def keeping(x):
            m5, m2, m1, p3, p4, p5 = (x.roll(shift, -1) for shift in (5, 2, 1, -3, -4, -5))
            return m5 * m1 * m2 - p5 * p4 * p3
        """,
    ],
}
