"""SkiLD, demonstration-guided reinforcement learning with learned skills, as a distributed system on Ray."""

from skild_ray.startup import make_data_folder_absolute, silence_notices

make_data_folder_absolute()
silence_notices()
