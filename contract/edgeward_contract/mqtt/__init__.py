"""How device and fleet speak to each other through an MQTT 5 broker.

It is in the contract because both must read a broker's reason codes alike. `connection` and what it uses import paho
when a connection is opened and no sooner: paho comes with the extra `mqtt`, and this package must not need it.
"""
