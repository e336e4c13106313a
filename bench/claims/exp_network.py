"""Exponential networks: steps, movement and rate over the width, and the smallest width over the number of points."""

from experiments import markdown


def table(bench):
    widths = "500,1000" if bench.quick else "500,1000,2000,4000,8000,16000,32000"
    counts, dimension = ("2,4", 8) if bench.quick else ("4,8,16,32,64", 16)
    run = bench.run("experiment", "exp-network", "--widths", widths)
    gradient, gauss_newton = (one["rows"] for one in run["tables"][:2])
    first = markdown(("m", "\\|F - y\\| at the start", "steps", "largest movement", "factor a step", "of H", "of its limit",
                      "steps of Gauss-Newton", "movement"),
                     [(int(row[0]), row[1], int(row[3]), *row[4:], int(other[3]), other[4])
                      for row, other in zip(gradient, gauss_newton)])
    run = bench.run("experiment", "exp-network", "--points", counts.split(",")[-1], "--dimension", dimension,
                    "--widths", 100, "--steps", 1, "--smallest-widths", counts)
    second = markdown((f"points n in {dimension} dimensions", "smallest m, median", "least", "most of 9 starts",
                       "steps that the rate allows", "slope of ln m"),
                      [(*(int(number) for number in row[:5]), "" if row[5] is None else row[5])
                       for row in run["tables"][2]["rows"]])
    return first + "\n\n" + second
