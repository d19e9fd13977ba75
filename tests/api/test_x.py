import time, trio
async def test_a(daemon):
    t=time.time(); await trio.sleep(5); print("daemon", time.time()-t)
async def test_b(daemon, farm):
    t=time.time(); await trio.sleep(5); print("farm", time.time()-t)
async def test_c(wall):
    t=time.time(); await trio.sleep(5); print("wall", time.time()-t)
async def test_d(wall):
    e=await wall.plug()
    t=time.time(); await trio.sleep(5); print("plug", time.time()-t)
async def test_e(wall):
    e=await wall.ready()
    t=time.time(); await trio.sleep(5); print("ready", time.time()-t)
