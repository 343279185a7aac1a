"""opsd on bad days: killed, starved and misled at random, with every promise checked after."""
