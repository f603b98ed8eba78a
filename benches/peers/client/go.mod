module birthmark.example/peers

go 1.25
