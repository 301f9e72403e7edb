"""A fake stage."""

from fake_stages.work import main

if __name__ == "__main__":
    main("rollout")
