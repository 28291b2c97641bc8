"""Names of the measures that exist once per feature space. A published name (FID, KID) needs the paper's network."""


def frechet_name(features: str) -> str:
    """ "fid" for inception alone, else "fd_<features>": numbers of two spaces have nothing to do with each other."""
    return "fid" if features == "inception" else f"fd_{features}"


def kernel_name(features: str) -> str:
    """ "kid" for inception alone, else "kid_<features>"."""
    return "kid" if features == "inception" else f"kid_{features}"
