"""The points of a measured training: the best, the first that is as good as another, and how long it all took."""

from harness import Result
from judgement import Point


def best(result: Result, distance: str = "kernel_distance") -> Point:
    """The point of the least distance."""
    distances = result["points"][distance]
    return _point(result, distances.index(min(distances)))


def duration(result: Result) -> float:
    """Seconds of training until the last point."""
    return result["points"]["seconds"][-1]


def first_as_good(result: Result, goal: Point) -> Point:
    """The first point whose distances are no larger and whose recall is no lower; infinitely late if there is none."""
    points = (_point(result, i) for i in range(len(result["points"]["seconds"])))
    signs = {key: -1 if key == "recall" else 1 for key in goal}
    reached = (p for p in points if all(sign * p[key] <= sign * goal[key] for key, sign in signs.items()))
    return next(reached, {"seconds": float("inf"), "images": float("inf")})


def _point(result: Result, index: int) -> Point:
    return {key: values[index] for key, values in result["points"].items()}
