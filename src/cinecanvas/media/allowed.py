"""What FFmpeg may open: the containers, codecs and sizes that are read here, and nothing else that it knows.

It knows hundreds of decoders, and the holes are found in those that nobody misses: JPEG 2000 in a MOV was one.
"""

from __future__ import annotations

MOST_PIXELS = 50_000_000  # of a frame

PICTURE_CODECS = frozenset({
    *("h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg2video", "mjpeg"),
    *("prores", "dnxhd", "ffv1", "qtrle", "gif", "png", "rawvideo"),
})  # fmt: skip
SOUND_CODECS = frozenset({
    *("aac", "opus", "mp3", "vorbis", "flac", "alac", "ac3", "eac3"),
    *("pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
    *("pcm_f32le", "pcm_f32be", "pcm_mulaw", "pcm_alaw"),
})  # fmt: skip
_DECODERS = {"libdav1d", "libvpx", "libvpx-vp9", "libopus", "libvorbis", "mp3float"}  # by other names than their codecs

FILMS_ALONE = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,webm,gif,avi",
    # These two hold for the look that FFmpeg takes while it opens; whoever decodes afterwards asks again.
    "codec_whitelist": ",".join(sorted(PICTURE_CODECS | SOUND_CODECS | _DECODERS)),
    "max_pixels": str(MOST_PIXELS),
}
"""Options for `av.open`: only files and only films, for a playlist could open other people's URLs."""
