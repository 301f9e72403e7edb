"""Films of episodes: what is written over a frame, and the file it goes into."""

from stages.video.bands import Overlay, overlay
from stages.video.writer import VideoError, VideoWriter

__all__ = ["Overlay", "VideoError", "VideoWriter", "overlay"]
