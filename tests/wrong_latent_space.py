"""Typical wrong answers to the exercises of notebook 5, and words of the feedback each must get."""

TRUNCATION = """
    def truncation(states, n):
        s = torch.linalg.svdvals(states - {})
        return {}
"""
COST = """
    def latent_cost(z, z_b, B_z, y, R, H, decode):
        return {} * (z - z_b) @ {} + {} * ((y - {}) ** 2 / {}).sum()
"""
INVERSE = "torch.linalg.solve(B_z, z - z_b)"
COVARIANCE = """
    def latent_covariance(encode, forecast, true):
        e = {}
        return {}
"""
DIFFERENCE = "encode(forecast) - encode(true)"

WRONG = {
    "truncation_error": [
        (TRUNCATION.format("states.mean(0)", "(s[:n]**2).sum().div((s**2).sum()).sqrt()"), "what the patterns *keep*"),
        (TRUNCATION.format("states.mean(0)", "(s[:n]**2).sum() / (s**2).sum()"), "share of the variance that is kept"),
        (TRUNCATION.format("states.mean(0)", "(s[n:]**2).sum() / (s**2).sum()"), "take the root"),
        (TRUNCATION.format("states.mean(0)", "s[n:].sum() / s.sum()"), "the *squares* of the singular values"),
        (TRUNCATION.format("0", "((s[n:]**2).sum() / (s**2).sum()).sqrt()"), "Take the mean off first"),
        (
            TRUNCATION.format("states.mean(0)", "((s[n+1:]**2).sum() / (s**2).sum()).sqrt()"),
            "with 4 patterns for n = 3",
        ),
        (TRUNCATION.format("states.mean(0)", "(s[n:]**2).sum().sqrt()"), "fields made of them"),
        (TRUNCATION.format("states.mean(0)", "s[n:] / s.sum()"), "one number is asked for"),
    ],
    "latent_3dvar": [
        (COST.format(0.5, INVERSE, 0.5, "H(z)", "R"), "Decode first"),
        (COST.format(0.5, INVERSE, 0.5, "decode(H(decode(z)))", "R"), "expects a latent state"),
        (COST.format(0.0, INVERSE, 0.5, "H(decode(z))", "R"), "background term is missing"),
        (COST.format(0.5, INVERSE, 0.0, "H(decode(z))", "R"), "observation term is missing"),
        (COST.format(0.5, "B_z @ (z - z_b)", 0.5, "H(decode(z))", "R"), "*inverse* of $B_z$"),
        (COST.format(0.5, "(z - z_b)", 0.5, "H(decode(z))", "R"), "forgets $B_z$"),
        (COST.format(0.5, INVERSE, 0.5, "H(decode(z))", "R**2"), "$R$ holds variances"),
        (COST.format(0.5, INVERSE, 0.5 / 6, "H(decode(z))", "R"), "a sum over them"),
        (COST.format(0.5, INVERSE, 0.5, "H(decode(z - z_b))", "R"), "not the departure"),
        (COST.format(1.0, INVERSE, 1.0, "H(decode(z))", "R"), "one half"),
        (COST.format(0.5, INVERSE, 1.0, "H(decode(z))", "R"), "term by term"),
    ],
    "latent_background": [
        (COVARIANCE.format("encode(forecast - true)", "torch.cov(e.mT)"), "You encode the *difference*"),
        (COVARIANCE.format("encode(forecast - true)", "e.mT @ e / (len(e) - 1)"), "You encode the *difference*"),
        (COVARIANCE.format(DIFFERENCE, "e.mT @ e / (len(e) - 1)"), "The mean error is still in it"),
        (COVARIANCE.format(DIFFERENCE, "torch.cov(e.mT, correction=0)"), "Divide by $M - 1$"),
        (COVARIANCE.format("encode(forecast)", "torch.cov(e.mT)"), "how forecasts differ from each other"),
        (COVARIANCE.format(DIFFERENCE, "torch.cov(e)"), "(12, 12); (3, 3) is asked for"),
        (COVARIANCE.format(DIFFERENCE, "torch.corrcoef(e.mT)"), "the difference of the codes"),
    ],
    "twenty_times_the_noise": [
        ("why = 'A'", "never meets the observations"),
        ("why = 'C'", "listens very well"),
        ("why = 'D'", "twice as large"),
        ("why = 'noise'", "one of the letters"),
    ],
    "errors_add": [
        ("without_autoencoder, share = 0.010, 0.5", "do not subtract like lengths"),
        ("without_autoencoder, share = 0.0224, 0.25", "smaller than 0.020"),
        ("without_autoencoder, share = 0.0003, 0.25", "take the root"),
        ("without_autoencoder, share = 0.015, 0.25", "right triangle"),
        ("without_autoencoder, share = 0.0173, 0.5", "of the *squared* error"),
        ("without_autoencoder, share = 0.0173, 0.75", "all the rest"),
        ("without_autoencoder, share = 0.0173, 25", "over the square of the other"),
    ],
    "keep_the_details": [
        ("def added_back(u_b, z_a, encode, decode): return decode(z_a)", "Without observations it changes"),
        ("def added_back(u_b, z_a, encode, decode): return u_b + decode(z_a)", "a whole field to a whole field"),
        ("def added_back(u_b, z_a, encode, decode): return u_b + decode(z_a - encode(u_b))", "is not linear"),
        ("def added_back(u_b, z_a, encode, decode): return u_b - decode(z_a) + decode(encode(u_b))", "wrong sign"),
        (
            "def added_back(u_b, z_a, encode, decode): return decode(z_a) + decode(encode(u_b)) - u_b",
            "the decoded change",
        ),
        ("def added_back(u_b, z_a, encode, decode): return z_a - encode(u_b)", "(40, 48) is asked for"),
    ],
}
