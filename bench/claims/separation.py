"""Two sets of tokens that polynomial attention tells apart from some degree on, and single vectors of which that holds."""

from experiments import markdown


def table(bench):
    own = () if not bench.quick else ("--n", 128, "--d", 6)
    sets, vectors = [], []
    for found in bench.run("experiment", "polynomial", *own)["tables"]:
        rows = [dict(zip(found["columns"], row)) for row in found["rows"]]
        if "predicted1" in found["columns"]:
            vectors += [(row["degree"], row["fires0"], row["fires1"], row["predicted1"]) for row in rows]
        else:
            name = ", ".join(found["title"].split(", ")[1:4])
            sets += [(name, row["degree"], row["share"], row["closed_share"], row["margin0"], row["margin1"],
                      row["closed_margin1"], row["fires0"], row["fires1"]) for row in rows if row["degree"] <= 8]
    tables = [markdown(("two sets", "degree", "P_jj", "closed form", "margin of D_0", "margin of D_1", "closed form",
                        "D_0 fires", "D_1 fires"), sets)]
    if vectors:
        tables.append(markdown(("degree of the vector form", "D_0 fires", "D_1 fires", "normal approximation"), vectors))
    return "\n\n".join(tables)
