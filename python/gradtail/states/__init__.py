"""What is kept between steps: small states that merge."""
