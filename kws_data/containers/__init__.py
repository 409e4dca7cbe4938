"""What the containers of audio files say, before anything is decoded: WAV and its kin, AIFF, CAF, Ogg, FLAC, MP3."""
