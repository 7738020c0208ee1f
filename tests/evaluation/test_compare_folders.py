import numpy as np
from omegaconf import OmegaConf
from PIL import Image

from transfergen.data.pictures import Pictures
from transfergen.evaluation.compare_folders import _most_common_shape

UNKNOWN = {"aspect": None, "resolution": None, "channels": None}


def test_the_size_of_pictures_above_the_usual_limit_is_found_where_the_limit_is_higher():
    pictures = Pictures(
        identity=lambda: "large",
        open=lambda i: Image.new("1", (10_240, 10_240)),
        name=lambda i: f"picture {i}",
        labels=np.zeros(1, np.int64),
    )
    data = OmegaConf.create(UNKNOWN | {"max_megapixels": 200})
    assert _most_common_shape("fake", pictures, data).size == (10_240, 10_240)
