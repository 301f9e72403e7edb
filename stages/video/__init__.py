"""Films of episodes: the layout of a frame, what is written over it, and the files they go into."""

from stages.video.bands import Bands
from stages.video.layout import FRAME_SHAPE, HEIGHT, compose, fit
from stages.video.writer import VideoError, VideoWriter

__all__ = ["FRAME_SHAPE", "HEIGHT", "Bands", "VideoError", "VideoWriter", "compose", "fit"]
